"""The targets without a runtime: c, js and python run the same model.bin."""

import base64
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.loaders.model_bin import library, model as program
from exporters.ngram import c, js, python
from exporters.ngram.normalization import symbols_of
from exporters.ngram.tables import write_model
from exporters.ngram.target import MODEL_FILE, SOURCES, Classify
from exporters.registry import exporter
from tests.exporters.ngram.test_graph import TEXTS, WORD_ROWS, evidence, network_of, package_of, student
from tests.helpers import ODD_TEXTS, Hbt, evidence_of, rehash, written
from toolkit import package
from toolkit.config.settings import CorpusSettings, ExportSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.manifest import read_manifest
from toolkit.modeling.classifier import Classifier, load_classifier, save_classifier
from toolkit.modeling.ngram import character_tokenizer
from toolkit.stages.run_folder import DISTILLATION, Run
from toolkit.utils.errors import CannotExport, InputError
from toolkit.workflows.compress import compress_checkpoint

needs_c = pytest.mark.skipif(library.missing_compiler() is not None, reason="no C compiler")
needs_node = pytest.mark.skipif(js.available() is not None, reason="no Node.js")
PROGRAMS = [
    pytest.param("python", python.start, id="python"),
    pytest.param("c", c.start, id="c", marks=needs_c),
    pytest.param("js", js.start, id="js", marks=needs_node),
]
SCRIPTS = [
    range(0x20, 0x7F), range(0x80, 0x250), range(0x300, 0x370), range(0x900, 0xA00), range(0xB00, 0x1000),
    range(0x1100, 0x1200), range(0xAC00, 0xD7A4), range(0x1E00, 0x2070), range(0xD800), range(0xE000, 0x110000),
    [0x9C7, 0x9BE, 0x9D7, 0x9BC, 0x9CD, 0x9AF, 0x9DF], [0x1100, 0x1161, 0x11A8, 0xAC00, 0xAC01], [0x49, 0x130, 0x307],
    range(0x1D150, 0x1D170), range(0x11090, 0x11140), range(0xF900, 0xFB50), range(0x1F600, 0x1F650),
    [0x20, 0xA0, 0x2581, 0x200C, 0x200D, 0xFEFF], [0x300, 0x301, 0x323, 0x327, 0x345, 0x334, 0x61, 0x1EAD, 0x344],
]  # fmt: skip


def random_texts(count: int, seed: int) -> list[str]:
    """Texts of a few scripts each, many with combining marks in any order."""
    dice = random.Random(seed)

    def text() -> str:
        chosen = dice.choices(SCRIPTS, k=dice.randint(1, 3))
        return "".join(chr(dice.choice(script)) for script in chosen for _ in range(dice.randint(1, 5)))

    return [text() for _ in range(count)]


@pytest.fixture(scope="module", params=[0, 1000], ids=["windows", "words"])
def made(request: pytest.FixtureRequest) -> Classifier:
    """A student whose vocabulary has characters of many scripts, without and with rows for words."""
    return replace(
        student(3, word_rows=request.param),
        tokenizer=character_tokenizer([*TEXTS, *random_texts(60, seed=1), "가각 ộ İ"]),
    )


@pytest.fixture(scope="module")
def model_file(made: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / MODEL_FILE
    write_model(network_of(made), made.tokenizer, made.labels, DecisionRule(), file)
    return file


def logits(classify: Classify, texts: list[str]) -> np.ndarray:
    return np.array([answer.logits for answer in classify(texts)])


def test_token_ids_are_those_of_the_tokenizer_for_random_texts(made: Classifier, model_file: Path) -> None:
    model = program.Model(model_file.read_bytes())
    for text in [*random_texts(8_000, seed=2), *ODD_TEXTS, "", " ", "\u0301", "a\u0301" + "\u0323\u0300" * 300]:
        assert model.token_ids(text) == made.tokenizer.encode(text).ids, ascii(text)


def test_code_points_have_the_token_ids_of_the_tokenizer(made: Classifier, model_file: Path) -> None:
    model = program.Model(model_file.read_bytes())
    every = [chr(code) for code in (*range(0x3400), *range(0xF900, 0x20000), *range(0xE0000, 0xE0200))]
    for start in range(0, len(every), 4096):
        text = "x".join(every[start : start + 4096])
        assert model.token_ids(text) == made.tokenizer.encode(text).ids, hex(start)


@pytest.mark.parametrize(("target", "start"), PROGRAMS[1:])
def test_every_program_has_the_logits_of_the_python_one(target: str, start: object, model_file: Path) -> None:
    assert callable(start)
    texts = [*random_texts(8_000, seed=3), *ODD_TEXTS, "", "\u0301\u0323", "a" + "\u0323\u0300\u0345" * 50, "x" * 5000]
    np.testing.assert_allclose(
        logits(start(model_file), texts), logits(python.start(model_file), texts), rtol=0, atol=1e-12
    )


@needs_c
def test_c_reads_malformed_utf_8_as_python_does(model_file: Path) -> None:
    dice = random.Random(4)
    pool = [*range(256), *range(0x80, 0xC0), 0xE0, 0xED, 0xF0, 0xF4, 0xF4, 0xE0, 0xED, 0x61]
    raw = [bytes(dice.choices(pool, k=dice.randint(1, 8))) for _ in range(3000)]
    code, data = c.library(), model_file.read_bytes()
    model = c.ctypes.create_string_buffer(library.MODEL_BYTES)
    assert code.ngram_open(model, data, len(data)) == 0
    found, expected = (c.ctypes.c_double * 3)(), python.start(model_file)
    for text in raw:
        code.ngram_logits(model, text, len(text), found)
        np.testing.assert_allclose([*found], expected([text.decode("utf-8", "replace")])[0].logits, atol=1e-12)


@WORD_ROWS
@pytest.mark.parametrize(("target", "start"), PROGRAMS)
@pytest.mark.parametrize("labels", [2, 7])
def test_a_package_has_the_scores_of_the_onnx_package(
    tmp_path: Path, target: str, start: object, labels: int, word_rows: int
) -> None:
    made = student(labels, word_rows=word_rows)
    reference = exporter("onnx-int8").load(package_of(made, "onnx-int8", tmp_path / "onnx"))
    model = exporter(target).load(package_of(made, target, tmp_path / target))
    texts = [*TEXTS, *ODD_TEXTS, "", "half \ud800 of a pair"]
    np.testing.assert_allclose(model.predict_logits(texts), reference.predict_logits(texts), atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(texts), reference.predict_proba(texts), atol=1e-6)
    assert [label for label, _ in model.predict(texts)] == [label for label, _ in reference.predict(texts)]
    assert model.predict_proba([]).shape == (0, labels)
    with pytest.raises(ValueError, match="not one text"):
        model.predict("text")


@pytest.mark.parametrize(("target", "start"), PROGRAMS)
@pytest.mark.parametrize(
    "rule",
    [
        DecisionRule(), DecisionRule(0.0), DecisionRule(0.5), DecisionRule(1.0),
        DecisionRule(None, (0.0, 0.0, 0.0)), DecisionRule(None, (-3.0, 4.0, 0.5)), DecisionRule(None, (0.0, 0.0, 60.0)),
    ],
    ids=str,
)  # fmt: skip
def test_the_decision_rule_is_that_of_the_classifier(
    tmp_path: Path, target: str, start: object, rule: DecisionRule
) -> None:
    """The weights are zero in some texts, so that two probabilities are exactly equal."""
    made = student(2 if rule.offsets is None else 3)
    network_of(made).intercept.data[:] = 0
    made = made.with_rule(rule)
    model = exporter(target).load(package_of(made, target, tmp_path / target))
    texts = [*TEXTS[:50], "", "\u200b", "○○"]
    expected = rule.predict(model.predict_proba(texts))
    assert [label for label, _ in model.predict(texts)] == [made.labels[i] for i in expected]
    assert (model.threshold, model.offsets) == (rule.threshold, rule.offsets)


@pytest.mark.parametrize(("target", "start"), PROGRAMS)
def test_labels_may_have_any_characters(tmp_path: Path, target: str, start: object) -> None:
    names = ('"quoted\\', "বাংলা 🙂\u200d", "</script>\t\n")
    made = replace(student(3), labels=names)
    model = exporter(target).load(package_of(made, target, tmp_path / target))
    assert model.labels == names
    assert {label for label, _ in model.predict(TEXTS)} <= {*names}


def test_a_label_with_a_zero_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotExport, match="without zero characters"):
        package_of(replace(student(2), labels=("a\0b", "c")), "python", tmp_path / "package")


def test_a_tokenizer_that_truncates_or_normalizes_otherwise_is_refused() -> None:
    truncating = character_tokenizer(TEXTS)
    truncating.enable_truncation(1024)
    with pytest.raises(CannotExport, match="truncates"):
        symbols_of(truncating)
    other = character_tokenizer(TEXTS)
    other.normalizer = other.normalizer[0]
    with pytest.raises(CannotExport, match="another version of hbt"):
        symbols_of(other)


@pytest.mark.parametrize("target", ["c", "js", "python"])
def test_a_transformer_is_refused(target: str, learned: Classifier, toy: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs an n-gram student; give --student ngram"):
        written(target, learned, evidence_of(toy), tmp_path / "package")


def test_a_transformer_is_refused_before_it_is_evaluated(
    workplace: Path, learned: Classifier, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    save_classifier(learned, workplace / "checkpoint")
    assert hbt("compress", "checkpoint", "--data", "comments.csv", "--target", "c") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "hbt: --target c: needs an n-gram student; give --student ngram"
    assert not (workplace / "models").exists()


@pytest.mark.parametrize(("target", "program"), [("c", "cc"), ("js", "node")])
def test_a_missing_program_is_one_line(
    target: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package_of(student(), "python", tmp_path / "package")
    for source in exporter(target).sources:  # type: ignore[attr-defined]
        shutil.copy(SOURCES / source, folder)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    c.library.cache_clear()
    assert "install" in (exporter(target).available() or "")
    with pytest.raises(ValueError, match="apt install"):
        exporter(target).load(folder)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete package of each target. Do not change them: copy them."""
    home = tmp_path_factory.mktemp("packages")
    made = replace(student(), labels=("non_hate", "hate"))
    for parameters in PROGRAMS:
        target, _ = parameters.values
        if parameters.marks:
            (skip,) = parameters.marks
            if skip.args[0]:
                continue
        folder = package_of(made, str(target), home / str(target))
        golden = package.golden_scores(exporter(str(target)).load(folder), ["sea", "sun"])
        package.write_manifest(folder, exporter(str(target)), "any", {}, golden)
    return home


@pytest.mark.parametrize(("target", "start"), PROGRAMS)
def test_a_package_verifies_and_needs_no_distribution(packages: Path, target: str, start: object) -> None:
    found = package.verify(packages / target)
    assert found.problems == []
    assert found.largest_score_gap < 1e-6
    runtime = read_manifest(packages / target)["runtime"]
    assert (runtime["name"], runtime["version"], runtime["versions"]) == ("none", "", {})
    assert (packages / target / "requirements.txt").read_text() == ""


@pytest.mark.parametrize(("target", "start"), PROGRAMS)
def test_how_to_load_needs_only_the_standard_library(packages: Path, target: str, start: object) -> None:
    command = [sys.executable, "-I", "-S", str(packages / target / "how_to_load.py"), "sea", "sun\x1b[0m"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    expected = package.load(packages / target).predict(["sea", "sun\x1b[0m"])
    shown = [
        f"{label}\t{score:.4f}\t{text}" for (label, score), text in zip(expected, ["sea", "sun\\x1b[0m"], strict=True)
    ]
    assert done.stdout.splitlines() == shown


@pytest.mark.parametrize(("target", "start"), PROGRAMS)
def test_the_command_line_is_that_of_other_packages(packages: Path, tmp_path: Path, target: str, start: object) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", "-B", str(packages / target / "how_to_load.py"), *words]
        return subprocess.run(command, capture_output=True, text=True)

    done = call("--self-test")
    assert (done.returncode, done.stderr) == (0, "")
    assert "token ids  2 of 2" in done.stdout and "versions   Python 3" in done.stdout
    (tmp_path / "in.csv").write_text("text\nsea\nsun\n", "utf-8")
    done = call("--file", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv"))
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split(",") for line in (tmp_path / "out.csv").read_text("utf-8").splitlines()]
    expected = package.load(packages / target).predict(["sea", "sun"])
    assert found == [["text", "predicted_label", "probability"]] + [
        [text, label, str(round(score, 6))] for text, (label, score) in zip(["sea", "sun"], expected, strict=True)
    ]
    measured = json.loads(call("--bench").stdout)
    assert measured["self_test"]["passed"] and measured["measurement"]["p50_ms"] > 0


@pytest.mark.parametrize(
    ("target", "source"),
    [
        pytest.param("c", "model.c", marks=needs_c),
        pytest.param("c", "model.h", marks=needs_c),
        pytest.param("js", "model.mjs", marks=needs_node),
    ],
)
def test_code_of_a_stranger_is_never_compiled_or_run(packages: Path, tmp_path: Path, target: str, source: str) -> None:
    folder = tmp_path / "package"
    shutil.copytree(packages / target, folder)
    with (folder / source).open("a") as file:
        file.write("\nnot valid in any language `'\n")
    rehash(folder)
    expected = f"{source} differs from that of this hbt and is not run"
    with pytest.raises(InputError, match=expected):
        package.load(folder)
    (problem,) = package.verify(folder).problems
    assert expected in problem
    (folder / source).unlink()
    (folder / source).symlink_to(SOURCES / source)
    with pytest.raises(ValueError, match=expected):
        exporter(target).load(folder)


@pytest.mark.parametrize(("target", "start"), PROGRAMS)
def test_labels_of_config_and_model_must_agree(packages: Path, tmp_path: Path, target: str, start: object) -> None:
    folder = tmp_path / "package"
    shutil.copytree(packages / target, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"threshold": 0.9}), "utf-8")
    rehash(folder)
    (problem,) = package.verify(folder).problems
    assert "different labels or decision rules" in problem


@pytest.mark.parametrize(("target", "start"), PROGRAMS)
def test_a_damaged_model_is_an_error_and_not_a_crash(
    model_file: Path, tmp_path: Path, target: str, start: object
) -> None:
    assert callable(start)
    data = model_file.read_bytes()
    for place, broken in enumerate([b"", data[:40], data[:-1], data + b"\0", b"HBT" + data[3:], data[:5000]]):
        file = tmp_path / f"{place}.bin"
        file.write_bytes(broken)
        with pytest.raises((ValueError, IndexError)):
            start(file)(["text"])


@needs_c
def test_c_has_no_warnings_and_its_command_line_works(packages: Path, tmp_path: Path) -> None:
    folder = packages / "c"
    strict = ["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror"]
    sources = [str(folder / "model.c"), str(folder / "main.c")]
    compiler = library.compiler()
    assert compiler is not None
    subprocess.run([compiler, *strict, "-o", str(tmp_path / "classify"), *sources, "-lm"], check=True)
    texts = ["sea", "", "sun " * 1000, "ক্যামেরা ভালো"]
    command = [str(tmp_path / "classify"), str(folder / MODEL_FILE)]
    done = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True, check=True)
    expected = [f"{label}\t{score:.4f}" for label, score in package.load(folder).predict(texts)]
    assert done.stdout.splitlines() == expected
    (tmp_path / "bad.bin").write_bytes(b"hbtngrm1" + bytes(200))
    done = subprocess.run([command[0], str(tmp_path / "bad.bin")], capture_output=True, text=True)
    assert done.returncode == 2 and "not a valid model.bin" in done.stderr


FIRMWARE = """
#include "model.h"
static const unsigned char bytes[1] = {1};
static ngram_model model;
int main(void) {
    float probabilities[NGRAM_MAX_LABELS];
    if (ngram_open(&model, bytes, sizeof bytes) != 0) return 2;
    return ngram_classify(&model, "text", 4, probabilities);
}
"""


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="no arm-none-eabi-gcc")
@pytest.mark.parametrize("processor", ["cortex-m0", "cortex-m4", "cortex-m33"])
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_c_fits_a_microcontroller_without_operating_system(tmp_path: Path, processor: str, level: str) -> None:
    """It calls nothing but mathematics and memory functions, and is as large as --budget-kb assumes at most."""

    def arm(tool: str, *words: str | Path) -> str:
        return subprocess.run([f"arm-none-eabi-{tool}", *words], capture_output=True, text=True, check=True).stdout

    def code_bytes(file: Path) -> int:
        return sum(map(int, arm("size", file).splitlines()[1].split()[:2]))

    (tmp_path / "main.c").write_text(FIRMWARE)
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }")
    flags = ["-std=c99", level, "-mthumb", f"-mcpu={processor}", f"-I{SOURCES}"]
    strict = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror"]
    arm("gcc", *flags, *strict, "-c", "-o", tmp_path / "model.o", SOURCES / "model.c")
    needed = {line.split()[-1] for line in arm("nm", "-u", tmp_path / "model.o").splitlines()}
    others = {name for name in needed if not name.startswith(("__aeabi_", "__gnu_thumb"))}
    assert others <= {"sqrt", "exp", "log", "memcpy", "memmove", "memset", "memcmp", "memchr", "strlen"}
    link = ["-ffunction-sections", "-Wl,--gc-sections", "--specs=nano.specs", "--specs=nosys.specs"]
    sizes = []
    for sources in ([tmp_path / "empty.c"], [tmp_path / "main.c", SOURCES / "model.c"]):
        try:
            arm("gcc", *flags, *link, "-o", tmp_path / "firmware", *sources, "-lm")
        except subprocess.CalledProcessError:
            pytest.skip("no C library for ARM")
        sizes.append(code_bytes(tmp_path / "firmware"))
    assert sizes[1] - sizes[0] < c.CODE_BYTES


FUZZ = """
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static uint32_t state = 1;
static uint32_t dice(void) { state ^= state << 13; state ^= state >> 17; state ^= state << 5; return state; }
int main(int arguments, char **argument) {
    static ngram_model model;
    static char text[64];
    static float probabilities[NGRAM_MAX_LABELS];
    long size, head = 30000, opened = 0;
    FILE *file = fopen(argument[arguments - 1], "rb");
    unsigned char *data, *broken;
    fseek(file, 0, SEEK_END), size = ftell(file), rewind(file);
    data = malloc((size_t)size), broken = malloc((size_t)size);
    if (fread(data, 1, (size_t)size, file) != (size_t)size) return 1;
    for (int round = 0; round < 3000; round++) {
        memcpy(broken, data, (size_t)size);
        for (uint32_t i = round == 0 ? 0 : 1 + dice() % 3; i > 0; i--)
            broken[dice() % (uint32_t)(dice() % 2 ? 68 : head)] = (unsigned char)dice();
        if (ngram_open(&model, broken, (size_t)size) != 0) continue;
        opened++;
        for (int t = 0; t < 20; t++) {
            uint32_t length = dice() % sizeof text;
            char *copy = malloc(length + 1); /* its end is watched */
            for (uint32_t i = 0; i < length; i++) copy[i] = (char)(dice() % 3 ? 0x80 + dice() % 0x70 : dice());
            char *exact = realloc(copy, length > 0 ? length : 1);
            ngram_classify(&model, exact, length, probabilities);
            free(exact);
        }
    }
    free(data), free(broken), fclose(file);
    printf("%ld\\n", opened);
    return opened > 100 ? 0 : 1;
}
"""


@needs_c
@pytest.mark.slow
def test_c_is_memory_safe_for_any_bytes(model_file: Path, tmp_path: Path) -> None:
    """Damaged models and random texts under AddressSanitizer and UndefinedBehaviorSanitizer."""
    (tmp_path / "fuzz.c").write_text(FUZZ)
    compiler = library.compiler()
    assert compiler is not None
    flags = ["-std=c99", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{SOURCES}"]
    made = str(tmp_path / "fuzz")
    command = [compiler, *flags, "-o", made, str(tmp_path / "fuzz.c"), str(SOURCES / "model.c"), "-lm"]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no sanitizers")
    done = subprocess.run([made, str(model_file)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("target", "start"), PROGRAMS)
def test_a_checkpoint_becomes_a_package_that_verifies(workplace: Path, target: str, start: object) -> None:
    save_classifier(replace(student(), labels=("non_hate", "hate")), workplace / "checkpoint")
    data = CorpusSettings(data="comments.csv", folds=2)
    outcome = compress_checkpoint("checkpoint", data, ExportSettings(target), None, force=False)
    assert outcome.package is not None
    assert package.verify(outcome.package).problems == []
    card = (outcome.package / "README.md").read_text("utf-8")
    assert ("pip install" in card) is False
    assert ("cc -std=c99" in card) is ("a C compiler" in card) is (target == "c")
    assert ("model.mjs" in card) is (target == "js")


@needs_node
def test_the_page_holds_program_and_model_and_no_address(tmp_path: Path) -> None:
    """A label cannot end the script, and a changed page is refused."""
    made = replace(student(), labels=("</script>", "<b>"))
    folder = tmp_path / "package"
    written("js", made, evidence(made, TEXTS), folder, page=True)
    page = (folder / js.PAGE_FILE).read_text("utf-8")
    assert page.count("</script>") == 2
    assert "http://" not in page and "https://" not in page
    assert "innerHTML" not in page and "default-src 'none'" in page
    held = page.split('<script type="text/plain" id="model">')[1].split("</script>")[0]
    assert base64.b64decode(held) == (folder / MODEL_FILE).read_bytes()
    assert exporter("js").load(folder).labels == made.labels
    (folder / js.PAGE_FILE).write_text(page.replace("default-src 'none'", "default-src *"), "utf-8")
    with pytest.raises(ValueError, match=r"page\.html differs"):
        exporter("js").load(folder)


@needs_node
def test_explained_shares_add_up_to_the_logits(made: Classifier, model_file: Path) -> None:
    """The places of n-grams lie in the text, and their shares sum to the logits without the intercept."""
    code = (
        "const { load } = await import(process.argv[1]); const model = await load(process.argv[2]);"
        "console.log(JSON.stringify(JSON.parse(process.argv[3]).map((text) => model.explain(text))));"
    )
    texts = ["sea sun", "e\u0301 \u200b ক্যামেরা", "가\u1161각", ""]
    places = [(SOURCES / "model.mjs").as_uri(), model_file.as_uri(), json.dumps(texts)]
    command = ["node", "--input-type=module", "-e", code, *places]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    for text, answer, exact in zip(texts, found, python.start(model_file)(texts), strict=True):
        np.testing.assert_allclose(answer["logits"], exact.logits, atol=1e-12)
        shares = np.sum([ngram["shares"] for ngram in answer["ngrams"]], axis=0)
        np.testing.assert_allclose(shares + network_of(made).intercept.numpy(), answer["logits"], atol=1e-6)
        units = len(text.encode("utf-16-le")) // 2
        assert all(0 <= ngram["from"] <= ngram["to"] <= units for ngram in answer["ngrams"])


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"target": "onnx-int8", "budget_kb": 64}, "--budget-kb: not for --target onnx-int8; use c, js, python"),
        ({"target": "c", "page": True}, "--page: not for --target c; use js"),
    ],
)
def test_options_of_other_targets_are_refused(settings: dict[str, Any], option: str) -> None:
    with pytest.raises(InputError, match=option):
        ExportSettings(**settings)


def test_a_budget_needs_a_run(workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    save_classifier(replace(student(), labels=("non_hate", "hate")), workplace / "checkpoint")
    assert hbt("compress", "checkpoint", "--data", "comments.csv", "--target", "c", "--budget-kb", "64") == 2
    assert "--budget-kb: checkpoint is not a run" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_budget_is_kept_and_the_smaller_table_still_classifies(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("train", "--data", "comments.csv", "--student", "ngram:14", "--no-teacher", "--name", "small") == 0
    assert hbt("compress", "runs/small", "--target", "python", "--budget-kb", "3") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    least = int(said.split("needs ")[1].split(" KB")[0])
    assert hbt("compress", "runs/small", "--target", "python", "--budget-kb", str(least)) == 0
    folder = workplace / "models" / "small-python"
    size = sum((folder / name).stat().st_size for name in (MODEL_FILE, "how_to_load.py"))
    assert 1024 * (least - 1) < size <= 1024 * least
    manifest = read_manifest(folder)
    assert manifest["lineage"]["budget_kb"] == least
    assert manifest["lineage"]["table_rows"] >= 256
    assert package.verify(folder).problems == []
    capsys.readouterr()
    assert hbt("compress", "runs/small", "--target", "python", "--budget-kb", "512", "-o", "models/whole") == 0
    said = capsys.readouterr().err
    assert any(f"the table of {rows:,} rows fits" in said for rows in (2**14, 2**15))  # the latter with words


@pytest.mark.slow
def test_a_budget_fits_a_student_with_a_teacher_again(workplace: Path, hbt: Hbt) -> None:
    teacher = ("--model", "shape:1x32", "--pooling", "mean", "--max-length", "32", "--folds", "2", "--epochs", "1")
    given = ("--data", "comments.csv", "--student", "ngram:14", "--name", "taught", *teacher)
    assert hbt("train", *given, "--learning-rate", "1e-3") == 0
    assert hbt("compress", "runs/taught", "--target", "python", "--budget-kb", "40", "--force") == 0
    folder = workplace / "models" / "taught-python"
    assert sum((folder / name).stat().st_size for name in (MODEL_FILE, "how_to_load.py")) <= 40 * 1024
    assert read_manifest(folder)["lineage"]["table_rows"] < 2**14
    assert package.verify(folder).problems == []
    run = Run.open(workplace / "runs" / "taught")
    texts = run.corpus.take(run.corpus.rows("validation"))
    large, small = load_classifier(run.checkpoint(DISTILLATION)), package.load(folder)
    assert np.corrcoef(large.predict_logits(texts)[:, 1], small.predict_logits(texts)[:, 1])[0, 1] > 0.8
