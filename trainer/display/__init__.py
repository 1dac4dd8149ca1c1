"""How things look: pictures, terminal tables, the parts that pages share."""
