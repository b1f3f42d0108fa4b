"""What Hone's default settings reach on real tasks, and what TRL's reach."""
