"""Coverage-guided fuzzing of what parses bytes of others: ``python -m fuzz``."""
