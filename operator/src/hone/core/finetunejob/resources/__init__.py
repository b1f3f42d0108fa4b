"""The objects of a run, one builder per object, and what their pods mount."""
