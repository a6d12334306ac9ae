"""The experiment file: its schema, its loading with positions, and its documentation."""
