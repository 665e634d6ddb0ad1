"""From a model's name to a loaded, checked model that equal configurations share."""
