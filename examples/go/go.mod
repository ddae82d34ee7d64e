module adaptd.example/reader

go 1.19
