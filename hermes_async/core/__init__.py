"""What the framework does, told without any technology: dispatch, run, settle, listen."""
