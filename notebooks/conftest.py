"""nbval runs the lessons; tests/test_exercises.py tests exercises and solutions, without kernels."""

collect_ignore_glob = ["exercises/*", "solutions/*"]
