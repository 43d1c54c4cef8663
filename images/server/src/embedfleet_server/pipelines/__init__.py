"""Graphs over the models, run beside them: `core` decides, `operations` compute, `driver` asks the engine."""
