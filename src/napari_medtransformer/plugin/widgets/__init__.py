"""Building blocks that several docks share: style, icons, choices, pictures that keep their proportions."""
