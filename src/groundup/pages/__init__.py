"""Pages: templates, styles and charts; one look for reports, the server's page and the studio."""
