"""`python -m sr_iqa` and `accelerate launch -m sr_iqa`."""

from sr_iqa.cli import main

if __name__ == "__main__":
    main()
