"""`python -m moe_toy.corpus`: assemble the corpus, and print what each domain is made of."""

from moe_toy.corpus.corpus import main

if __name__ == "__main__":
    main()
