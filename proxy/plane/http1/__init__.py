"""HTTP/1.x on both sides: heads and chunked bodies are read by llhttp (httptools)."""
