"""The plan's choices: functions `(PlanInputs, Choices) -> Choices`, by subject. `plan.ORDER` says which comes when."""
