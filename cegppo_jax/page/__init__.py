"""One self-contained HTML page from the directories of runs, and a doctor that reads them."""
