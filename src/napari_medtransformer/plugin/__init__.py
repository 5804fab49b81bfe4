"""The napari side: readers, writers, sample data and docks. Importing it loads no Qt."""
