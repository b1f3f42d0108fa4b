"""The impure shell around the core: watches, queue, API calls, metrics and the process itself."""
