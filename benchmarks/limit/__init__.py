"""How far an artifact runs from what the machine can do, and what it consists of."""
