-- What `prisma migrate` makes of the schema beside it. That command is a program which Prisma
-- fetches from a server of its own, so that the statements are executed by prisma.mjs.

-- CreateTable
CREATE TABLE "prisma_shelf" (
    "id" SERIAL NOT NULL,
    "label" TEXT NOT NULL,

    CONSTRAINT "prisma_shelf_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "prisma_item" (
    "id" BIGSERIAL NOT NULL,
    "name" TEXT NOT NULL,
    "shelf_id" INTEGER,
    "big" BIGINT,
    "fine" BOOLEAN,
    "price" DECIMAL(10,2),
    "ratio" DOUBLE PRECISION,
    "seen" TIMESTAMPTZ(6),
    "day" DATE,
    "ref" UUID,
    "doc" JSONB,
    "raw" BYTEA,
    "note" TEXT,

    CONSTRAINT "prisma_item_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "prisma_account" (
    "id" SERIAL NOT NULL,
    "balance" BIGINT NOT NULL,

    CONSTRAINT "prisma_account_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "prisma_shelf_label_key" ON "prisma_shelf"("label");

-- CreateIndex
CREATE UNIQUE INDEX "prisma_item_name_key" ON "prisma_item"("name");

-- AddForeignKey
ALTER TABLE "prisma_item" ADD CONSTRAINT "prisma_item_shelf_id_fkey" FOREIGN KEY ("shelf_id") REFERENCES "prisma_shelf"("id") ON DELETE SET NULL ON UPDATE CASCADE;
