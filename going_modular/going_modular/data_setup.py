"""`create_dataloaders`, under the course's name."""

from going_modular.data_setup import create_dataloaders as create_dataloaders
from going_modular.data_setup import default_num_workers

NUM_WORKERS = default_num_workers()
