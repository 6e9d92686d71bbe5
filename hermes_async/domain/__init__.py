"""What the words mean: agents, tasks, events and the law of a task's life. Pure values, no I/O."""
