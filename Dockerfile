# hbt serve without torch: docker build -t hbt-serve . (docs/serve.md)
FROM python:3.12-slim
# What serving imports; `pip install hbt-toolkit` would bring everything that training needs.
RUN pip install --no-cache-dir click filelock numpy onnxruntime packaging prometheus-client psutil py-cpuinfo rich \
    starlette tokenizers uvicorn
WORKDIR /app
COPY hbt.py ./
COPY toolkit toolkit
COPY exporters exporters
RUN python -m compileall -q . && useradd --system hbt
USER hbt
ENV OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"
ENTRYPOINT ["python", "-m", "hbt", "serve", "--host", "0.0.0.0"]
CMD ["/package"]
