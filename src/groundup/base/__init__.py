"""What every chapter stands on: Config, errors, console, model folders, devices, seeds, the sandbox."""
