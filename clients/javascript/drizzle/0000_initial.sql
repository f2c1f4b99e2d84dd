CREATE TABLE "drizzle_shelf" (
	"id" serial PRIMARY KEY NOT NULL,
	"label" text NOT NULL,
	CONSTRAINT "drizzle_shelf_label_unique" UNIQUE("label")
);
--> statement-breakpoint
CREATE TABLE "drizzle_item" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "drizzle_item_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"name" text NOT NULL,
	"shelf_id" integer,
	"big" bigint,
	"fine" boolean,
	"price" numeric(10, 2),
	"ratio" double precision,
	"seen" timestamp with time zone,
	"day" date,
	"ref" uuid,
	"doc" jsonb,
	"raw" "bytea",
	CONSTRAINT "drizzle_item_name_unique" UNIQUE("name")
);
--> statement-breakpoint
CREATE TABLE "drizzle_account" (
	"id" serial PRIMARY KEY NOT NULL,
	"balance" bigint NOT NULL
);
--> statement-breakpoint
ALTER TABLE "drizzle_item" ADD CONSTRAINT "drizzle_item_shelf_id_drizzle_shelf_id_fk" FOREIGN KEY ("shelf_id") REFERENCES "public"."drizzle_shelf"("id") ON DELETE no action ON UPDATE no action;
--> statement-breakpoint
CREATE INDEX "drizzle_item_day" ON "drizzle_item" USING btree ("day");
