# %% [markdown]
# # Object-oriented Python: a bank
#
# We build a small bank class by class, and change our mind on the way.


# %%
class Account:
    """An account with an owner and a balance."""

    count = 0
    bank = "First Notebook Bank"

    def __init__(self, owner, balance=0):
        self.owner = owner
        self._balance = balance
        Account.count += 1
        self.number = Account.count

    @property
    def balance(self):
        return self._balance

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("a deposit is positive")
        self._balance += amount
        return self

    def __repr__(self):
        return f"<{type(self).__name__} {self.number} of {self.owner}: {self._balance:.2f}>"


# %%
ada = Account("Ada", 100)
bob = Account("Bob")
ada, bob

# %%
ada.deposit(50).deposit(25)
Account.count, ada.balance

# %%
try:
    bob.deposit(-5)
except ValueError as error:
    print("refused:", error)


# %% [markdown]
# ## Inheritance


# %%
class Savings(Account):
    rate = 0.02

    def add_interest(self):
        self._balance *= 1 + self.rate
        return self.balance

    @classmethod
    def raise_rate(cls, by):
        cls.rate += by

    @staticmethod
    def is_valid(rate):
        return 0 <= rate < 1


carol = Savings("Carol", 1000)
carol.add_interest()

# %%
Savings.raise_rate(0.01)
print(carol.add_interest(), Savings.rate, Account.count)
isinstance(carol, Account), Savings.__mro__[1] is Account


# %%
class Overdrawn(Exception):
    def __init__(self, account, amount):
        super().__init__(f"{account.owner} cannot pay {amount}")
        self.account, self.amount = account, amount


def withdraw(self, amount):
    if amount > self._balance:
        raise Overdrawn(self, amount)
    self._balance -= amount
    return self


# Methods may come later.
Account.withdraw = withdraw
ada.withdraw(75)

# %%
try:
    carol.withdraw(10_000)
except Overdrawn as overdrawn:
    caught = overdrawn
    print(caught)
caught.account is carol, caught.amount


# %% [markdown]
# ## Operators and containers


# %%
class Bank:
    def __init__(self, *accounts):
        self.accounts = {account.number: account for account in accounts}

    def __len__(self):
        return len(self.accounts)

    def __getitem__(self, number):
        return self.accounts[number]

    def __iter__(self):
        return iter(self.accounts.values())

    def __contains__(self, account):
        return account.number in self.accounts

    def __add__(self, other):
        return Bank(*self, *other)

    def total(self):
        return sum(account.balance for account in self)


bank = Bank(ada, bob) + Bank(carol)
len(bank), ada in bank, bank[3]

# %%
bank[1].deposit(1)
print(ada.balance, bank.total())  # the bank holds the same objects
[account.owner for account in bank]

# %% [markdown]
# ## A class is written again
#
# Objects of the old class keep their old ways.


# %%
class Savings(Account):
    rate = 0.5

    def __repr__(self):
        return f"savings of {self.owner}"


dave = Savings("Dave", 10)
dave, carol, isinstance(carol, Savings), Account.count

# %%
carol.add_interest()
hasattr(dave, "add_interest")

# %%
del bob
print([account for account in bank])
"bob" in dir()
