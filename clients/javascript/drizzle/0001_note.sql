ALTER TABLE "drizzle_item" ADD COLUMN "note" text;
