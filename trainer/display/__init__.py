"""How results look: pictures, terminal tables, and the parts that pages share."""
