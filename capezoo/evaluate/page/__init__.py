"""Studies, training runs and a store on one page."""
