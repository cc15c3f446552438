"""What notebooks' cells call: set-up, results, figures, exercises."""
