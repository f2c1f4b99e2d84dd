ALTER TABLE `drizzle_libsql_item` ADD `note` text;
