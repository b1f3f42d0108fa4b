"""The impure shell: watches, queue, API client, execution of plans, metrics and probes."""
