"""What a well-known course imports by `from going_modular.going_modular import ...`.

Its notebooks 05 to 09 call `data_setup`, `engine`, `model_builder`, `utils`, `predictions` and
`helper_functions`. These modules take the same arguments and give the same results; the work is
done by the package around them, which knows nothing of this one.
"""

if __name__ == "going_modular":
    raise ImportError(
        "A file of this package was started by its path: in the folder above it, run "
        "`python -m going_modular.train` instead."
    )
