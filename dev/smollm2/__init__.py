"""SmolLM2-135M-Instruct, a published chat model for the demo: from a package, as no model hub is needed for it."""
