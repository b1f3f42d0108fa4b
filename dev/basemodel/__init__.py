"""A base model of a few million parameters, pretrained here on generated text, for the cluster without a model hub."""
