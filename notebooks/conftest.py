"""nbval runs the lessons; exercises and solutions have tests/test_exercises.py, without kernels."""

collect_ignore_glob = ["exercises/*", "solutions/*"]
