CREATE TABLE `drizzle_libsql_shelf` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`label` text NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `drizzle_libsql_shelf_label_unique` ON `drizzle_libsql_shelf` (`label`);--> statement-breakpoint
CREATE TABLE `drizzle_libsql_item` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`name` text NOT NULL,
	`shelf_id` integer,
	`fine` integer,
	`seen` integer,
	`ratio` real,
	`doc` text,
	`raw` blob,
	`big` blob,
	FOREIGN KEY (`shelf_id`) REFERENCES `drizzle_libsql_shelf`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `drizzle_libsql_item_name_unique` ON `drizzle_libsql_item` (`name`);
