"""A chat on a terminal, in a pipe and as JSON: what is typed, what is shown, and what runs meanwhile."""
