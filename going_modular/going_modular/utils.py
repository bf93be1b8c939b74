"""`save_model`, under the course's name."""

from going_modular.utils import save_model as save_model
