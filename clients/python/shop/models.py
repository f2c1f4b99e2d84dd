"""One model with a field of every type, one with a foreign key, one to be fought over."""

from django.db import models


class Shelf(models.Model):
    label = models.CharField(max_length=50, unique=True)


class Item(models.Model):
    name = models.CharField(max_length=100, unique=True)
    shelf = models.ForeignKey(Shelf, models.CASCADE, null=True, related_name="items")
    big = models.BigIntegerField(null=True)
    fine = models.BooleanField(null=True)
    price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    ratio = models.FloatField(null=True)
    seen = models.DateTimeField(null=True)
    day = models.DateField(null=True, db_index=True)
    ref = models.UUIDField(null=True)
    doc = models.JSONField(null=True)
    raw = models.BinaryField(null=True)
    note = models.TextField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(price__gte=0), name="item_price_not_negative")
        ]


class Account(models.Model):
    balance = models.BigIntegerField()
