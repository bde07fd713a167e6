"""What a recipe needs on TPUs: its real programs compiled without hardware, their memory, traffic
and time. `cegppo plan` prints it.
"""
