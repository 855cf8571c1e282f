"""Did saliency help: arms trained in pairs, the statistics of their differences, and the page that shows them."""
