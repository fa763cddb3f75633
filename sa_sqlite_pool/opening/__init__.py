"""How connections are opened, by SQLAlchemy's dialect or the application, and set up."""
