"""The Volume dock, and what every viewer with a medical volume shows: facts, letters at the edges, values."""
