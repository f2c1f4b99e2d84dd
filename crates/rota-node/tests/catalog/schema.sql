CREATE TABLE author (id SERIAL PRIMARY KEY, name TEXT NOT NULL, email VARCHAR(80) UNIQUE, born DATE, score NUMERIC(10,2) DEFAULT 0, CHECK (score >= 0));
CREATE TABLE book (id BIGSERIAL PRIMARY KEY, author_id INT NOT NULL REFERENCES author(id) ON DELETE CASCADE, title TEXT DEFAULT 'untitled', sold BOOLEAN NOT NULL DEFAULT false, at TIMESTAMPTZ DEFAULT now(), CONSTRAINT title_long CHECK (length(title) > 1));
CREATE INDEX book_title ON book (title, author_id);
CREATE UNIQUE INDEX book_lower ON book (lower(title)) WHERE sold;
CREATE TABLE pair (a INT, b INT, c TEXT, PRIMARY KEY (a, b), UNIQUE (b, c));
CREATE VIEW titles AS SELECT title, name FROM book JOIN author ON author.id = author_id;
