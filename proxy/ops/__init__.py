"""Operations: lifecycle, logs, metrics, the admin listener and its page."""
