"""The agent's speed and size on this machine, as the command that users run, against named limits and peers."""
