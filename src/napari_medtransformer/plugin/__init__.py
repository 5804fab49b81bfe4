"""The napari side: readers, writers, sample data and docks. Importing it loads neither Qt nor torch."""

from napari_medtransformer.openmp import use_large_pages, wait_without_spinning

wait_without_spinning()
use_large_pages()
