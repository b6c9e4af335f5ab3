"""Drawing answers on their media (boxes, points, tracks, spans, masks), and the HTML file that pictures stand in."""
