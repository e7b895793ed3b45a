"""The command line: `main` holds the table of verbs, one small file a verb."""
