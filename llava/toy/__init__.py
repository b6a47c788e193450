"""A small world in LLaVA's own file formats: images, questions, a small tower and a small base model."""
