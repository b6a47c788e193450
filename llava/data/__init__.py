"""From LLaVA's JSON and image files to the batches a model trains on."""
